"""What is true: entities, rules and ports.

Only the standard library may be imported here; nothing in this layer does I/O or awaits.
"""
