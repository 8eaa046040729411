"""Hugging Face model folders, in and out: weights, configuration, tokenizer.

Local files only; nothing is downloaded, nothing is unpickled.
"""
