"""The differential test: the same requests to Debian's docker-registry and to ours, and the list of what may differ.

``content`` is what both hold, ``cases`` the requests, ``servers`` the two pairs of listeners, ``answers`` what is
compared, ``differences`` what is allowed to differ and why.
"""
