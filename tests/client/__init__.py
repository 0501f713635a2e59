"""Tests of the client library: pure parts by themselves, HTTP against a scripted server, lives against a real one."""
