# SPDX-License-Identifier: Apache-2.0
"""A simulator of placement: recorded or made-up load, targets with queues, and what each policy makes of them."""
