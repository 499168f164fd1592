"""Fuzzes pyquant with damaged files and random networks: python -m bench.fuzz --seconds 60.

Start at `cases`. Each case follows from the seed and its number alone: ``--case N`` runs one again.
"""
