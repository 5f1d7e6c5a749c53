"""Decide whether a mathematical answer equals the reference: extraction, plain numbers, typed comparison, numeric evaluation.

The filter math_answer combines these modules. None of them executes text, and none calls sympy's sympify or parse_expr.
"""
