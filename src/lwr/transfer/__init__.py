"""Moving bytes, for both sides: files of a job, digests, transfers that are tried again.

Knows nothing of jobs' states, of the store or of routes, and logs nothing: it reports by return and by error.
"""
