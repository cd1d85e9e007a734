# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled part of the engine."""
from libc.stdint cimport uint32_t


def total(const uint32_t[::1] numbers) -> int:
    """Their sum; a stand-in until the search is here."""
    cdef unsigned long long found = 0
    cdef Py_ssize_t i
    with nogil:
        for i in range(numbers.shape[0]):
            found += numbers[i]
    return found
