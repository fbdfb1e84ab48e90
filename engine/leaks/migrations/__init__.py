"""The steps that bring an older ledger.sqlite up to this build's schema, in order.

`ledger.sql` beside this folder is the newest schema whole, for a new file. A change of schema adds
`NNNN_what.sql` here, where NNNN is the version that it leads to, and changes `ledger.sql` to match.
"""

from __future__ import annotations
