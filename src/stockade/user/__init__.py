"""user-service: accounts, roles, sessions, and the keys with which every token is signed.

It promises that a password is only ever kept as an Argon2id hash, that a refresh token works once (a second use ends
the whole session), that repeated wrong passwords lock an account for a while, and that every grant is in the audit log.
"""
