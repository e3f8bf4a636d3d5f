# SPDX-License-Identifier: Apache-2.0
"""The embedded platform: S3, dCache, OSCAR, Kubernetes with interLink and SLURM as plain processes.

For trying the provider and for test suites (``with LocalPlatform() as platform:``), never for
production. Needs the extra ``local``. Nothing else in the package imports it.
"""
