# SPDX-License-Identifier: Apache-2.0
"""S3 and its compatible servers: import from :mod:`.hook`, which loads boto3, or :mod:`.listing`, which does not."""
