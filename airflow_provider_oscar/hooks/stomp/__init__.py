# SPDX-License-Identifier: Apache-2.0
"""STOMP 1.2, the protocol in which message brokers such as ActiveMQ give Rucio's messages away."""
