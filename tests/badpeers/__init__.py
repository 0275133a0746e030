"""Bad peers: a catalogue of answers that a sick or hostile node gives, and a process that gives them.

``entries`` is the catalogue; each entry is data, with a name and a sentence. ``server`` is the process, one entry each. Two
tests use them: ``tests/integration/test_bad_peers.py`` replays entries with real nodes, and the fuzz target ``peers`` begins
with what they answer. An answer that did harm somewhere becomes an entry, whatever mended it.
"""
