# SPDX-License-Identifier: Apache-2.0
"""What the hooks that speak HTTP share: request sequences, TLS, XML and event streams."""
