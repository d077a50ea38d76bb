"""Who may do what inside of a tenant."""
