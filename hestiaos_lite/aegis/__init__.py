"""AEGIS: human approvals that take effect exactly once, recorded on disk before they are sent.

`client` is what a script holds, `keys` names a decision, `outbox` is the durable queue of decisions, `flush` sends what waits
there, `rows` is one decision in its table, and `file` the SQLite file under it.
"""
