"""The words of LWR: states, places, plans, wire forms, tickets, scripts.

Knows no I/O, no clock, no threads and no logging, and imports nothing of LWR but `lwr.errors`.
"""
