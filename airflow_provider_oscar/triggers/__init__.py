# SPDX-License-Identifier: Apache-2.0
"""What waits in the triggerer: coroutines that never block its loop and hold no secret in their arguments."""
