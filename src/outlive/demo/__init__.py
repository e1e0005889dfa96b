"""`outlive demo`: an order service that is killed again and again, and an audit of what it did.

`workflow` and `child` are the program that a user would write; `service` is the payment
provider that it calls; `parent` kills it; `audit` compares what three parties know:
the orders file, the provider's ledger and the bookings in the database.
Knows only what `import outlive` offers.
"""
