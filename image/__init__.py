"""Builds the container image without a registry and without root: Debian packages, wheels, and an OCI archive of them.

Owns everything between `make image` and `build/image/`: what goes into the image, byte for byte, and the list of it.

Promises:

- Nothing enters unchecked: Debian packages by the archive's signature and `packages.lock`, wheels by their hash.
- Nothing enters that running does not need: no shell, no package manager, no compiler, no tests, no PostgreSQL server.
- The same inputs give the same digest, wherever and whenever it is built; times, owners, order and bytecode are fixed.
- Nothing runs that a package brings along: packages are unpacked, never installed.

How each file comes about: `debian` and `wheels` fetch and unpack, `rootfs` puts them together, `layers` and `layout`
write them down, `bill` lists them.
"""
