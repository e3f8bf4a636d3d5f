# SPDX-License-Identifier: Apache-2.0
"""The program that runs beside the user's command on the compute side.

Its modules use Python 3.8 and its standard library alone, because they travel as one text into images we did not
build (:mod:`.bundle` joins them). They import nothing of the rest of this provider; of this package the provider
imports :mod:`.bundle` and nothing else.
"""
