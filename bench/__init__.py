"""The measurements: Stockade against its targets, and against pgbench doing the same rows one transaction each.

Owns a PostgreSQL and a Stockade of its own, in a directory that it makes and removes. It promises that both sides of a
row had the same machine at the same time: they take turns on one durable PostgreSQL, repeat after repeat, and both are
warm when counting begins. A row counts only when every answer was the expected one, when each side left exactly the rows
that it says it writes, and when the books prove themselves afterwards; anything else is printed as invalid. Beside a rate
stands what it cost: CPU of the product's process and of PostgreSQL per request, and what strangers used meanwhile.

The load client shares the machine with the server, as does pgbench. Its own CPU per request is in the JSON.
"""
