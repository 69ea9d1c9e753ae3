"""Streams: one for each Generate or Label call in work.

sampling        opens one for a job: the service without its wire
call            what it is for: who calls, until when, what is told of it
first_messages  waits for what a call asks
sources         where its rows come from: addresses, or the latents of the caller
labelling       takes in the messages of a Label call
sample_stream   hands out rows, takes back results, has messages made of them
outbox          keeps the messages until the caller takes them
stalls          notices a caller who neither takes nor sends anything
account         what metrics, trace and log tell of it
"""
