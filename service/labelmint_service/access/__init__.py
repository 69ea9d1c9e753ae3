"""Access: who may call, which models it sees and how much it may take. Nothing here knows grpc.

tokens      make, hash and read bearer tokens
clients     the file of clients: names, hashes, models, limits
watching    notices that files have changed
roster      the clients in force; reads their file again when it changes
rates       samples a second, as a token bucket
quotas      samples a day, counted so that a kill never gives more
quota_store what survives the process
accounts    what one client uses at the moment, and the share of it that a stream holds
control     all of it together: a token goes in, a caller comes out
allowances  what a stream asks before it hands rows out
certificates  TLS files, read again when they change
cli         the command that makes a token
"""
