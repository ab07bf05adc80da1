"""AEGIS: human approvals that take effect exactly once, recorded on disk before they are sent.

`client` is what a script holds, `keys` names a decision, `outbox` is the durable queue of decisions and `rows` its table,
`delivery` sends one decision or what waits, and `answers` says what the service's answer means.
"""
