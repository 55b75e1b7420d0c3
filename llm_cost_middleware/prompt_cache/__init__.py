"""Prompt caching that earns money: where a cache mark pays, and what it is worth.

``layout`` reads a request into the boundaries at which a cached prefix can end; ``statistics`` remembers, by
fingerprint only, which of them came back and how soon; ``planner`` weighs what a write costs against what it is
expected to save; ``breakpoints`` renders a plan on copies of provider-shaped bodies. Pure throughout: the time, prices,
abilities and statistics are arguments.
"""
