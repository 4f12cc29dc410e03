"""Launches carried out without Python: lists of NumPy's inner loops, worked off by a C function.

`library` finds the compiled function, `loops` the inner loop of a ufunc, `encode` writes a call
down, `calls` makes one list of the calls of a launch or of many. Whatever cannot be written down
stays a call from Python; without the library everything does.
"""
