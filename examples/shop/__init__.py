"""What the example applications share: products, accounts, and the way they are started."""
