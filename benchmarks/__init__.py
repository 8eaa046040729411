"""Measurements: alignjax beside what people would pick instead."""
