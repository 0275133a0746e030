"""Readers of image archives: one a format, all with one interface.

:func:`appliance.archives.reader.read_source` reads a file or directory once, hands every
blob to a :class:`appliance.archives.sink.BlobSink`, and returns what the archive names. Nothing is ever
extracted, no link is followed on disk, no address is fetched, and sources are opened read-only.
"""
