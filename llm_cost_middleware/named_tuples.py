"""Named tuples where the way of a call makes them: of all their fields, without the frame of their constructor.

``made(Kind, (first, second))`` costs a third of ``Kind(first, second)`` and a sixth of it with keywords. A value with a
field too few fails far from here, so a test counts the fields of each.

What is read more often than it is unpacked, as most of what a call hands on, is a ``msgspec.Struct``: frozen, and
unknown to the garbage collector where no field can lead back to it. It is made in half of that, and a field of it read
in a quarter.
"""

made = tuple.__new__
