"""Whether a mathematical answer equals the reference: extraction, plain numbers, typed comparison, numeric evaluation.

filters.math_answer puts these together. None of it executes text, and none calls sympy's sympify or parse_expr.
"""
