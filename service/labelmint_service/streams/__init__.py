"""Streams: one for each Generate or Label call in work.

sampling       opens one for a job: the service without its wire
sources        where its rows come from: addresses, or the latents of the caller
first_messages  waits for what a call asks
labelling      takes in the messages of a Label call
sample_stream  hands out rows, takes back results, queues messages for the caller
"""
