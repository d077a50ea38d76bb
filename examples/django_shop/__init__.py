"""A shop on Django, with its admin: each tenant has its own staff, products and orders."""
