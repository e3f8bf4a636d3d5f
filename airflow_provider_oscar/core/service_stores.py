# SPDX-License-Identifier: Apache-2.0
"""Stores and clusters that the services of an FDL name, with what reaches them.

OSCAR drops a key it does not know, and the service then fails at its first object. Source: ``pkg/types/storage.go``,
``cluster.go`` and ``replica.go`` of OSCAR 4.1.2.
"""

from __future__ import annotations

from typing import TypedDict


class MinioProvider(TypedDict, total=False):
    """A MinIO, or another store with the S3 protocol.

    :param endpoint: its URL.
    :param verify: whether its certificate is checked.
    :param access_key: name of the account.
    :param secret_key: its secret.
    :param region: its region, ``us-east-1`` by default.
    """

    endpoint: str
    verify: bool
    access_key: str
    secret_key: str
    region: str


class S3Provider(TypedDict, total=False):
    """Amazon S3.

    :param access_key: name of the account.
    :param secret_key: its secret.
    :param region: its region.
    """

    access_key: str
    secret_key: str
    region: str


class OnedataProvider(TypedDict, total=False):
    """A Oneprovider.

    :param oneprovider_host: its host.
    :param token: access token.
    :param space: name of the space.
    """

    oneprovider_host: str
    token: str
    space: str


class WebdavProvider(TypedDict, total=False):
    """A WebDAV server, such as dCache's door.

    :param hostname: host and port, without a scheme; https alone.
    :param login: name of the account.
    :param password: its password.
    """

    hostname: str
    login: str
    password: str


class RucioProvider(TypedDict, total=False):
    """A Rucio server.

    :param host: its URL.
    :param account: name of the account.
    :param rse: the storage element to upload to.
    :param refresh_token: from which access tokens are made.
    :param auth_host: URL of its authentication server.
    :param oidc_audience: audience of the tokens.
    :param token_endpoint: where they are asked for.
    """

    host: str
    account: str
    rse: str
    refresh_token: str
    auth_host: str
    oidc_audience: str
    token_endpoint: str


class StorageProviders(TypedDict, total=False):
    """Stores by type and then by a name of the user's choice; inputs and outputs name them ``<type>.<name>``.

    :param minio: stores with the S3 protocol; ``default`` is the cluster's own.
    :param s3: accounts of Amazon S3.
    :param onedata: Oneproviders.
    :param webdav: WebDAV servers; an event of dCache needs one called ``dcache``.
    :param rucio: Rucio servers; an event of Rucio needs one called ``rucio``.
    """

    minio: dict[str, MinioProvider]
    s3: dict[str, S3Provider]
    onedata: dict[str, OnedataProvider]
    webdav: dict[str, WebdavProvider]
    rucio: dict[str, RucioProvider]


class Cluster(TypedDict, total=False):
    """Another OSCAR.

    :param endpoint: its URL.
    :param auth_user: name of the account.
    :param auth_password: its password.
    :param ssl_verify: whether its certificate is checked.
    """

    endpoint: str
    auth_user: str
    auth_password: str
    ssl_verify: bool


class Member(TypedDict, total=False):
    """A service that jobs of a federated one may be handed to.

    :param type: ``oscar``, or ``endpoint`` for another web address.
    :param cluster_id: name of its cluster, among ``clusters``.
    :param service_name: its name there.
    :param url: of an ``endpoint``.
    :param ssl_verify: whether the certificate of an ``endpoint`` is checked.
    :param priority: the smallest is asked first, where ``delegation`` is ``static``; 0 by default.
    :param headers: that are sent to an ``endpoint``.
    """

    type: str
    cluster_id: str
    service_name: str
    url: str
    ssl_verify: bool
    priority: int
    headers: dict[str, str]
