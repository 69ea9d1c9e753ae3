"""Requests: a message goes in, a checked job comes out.

parsing  Generate and the options of Label, whole
filters  which samples are wanted
outputs  which of their arrays, in which forms
"""
