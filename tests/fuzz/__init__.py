"""A fuzzer for everything that reads bytes from outside: `python -m tests.fuzz --minutes 5`."""
