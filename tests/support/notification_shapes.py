# SPDX-License-Identifier: Apache-2.0
"""What senders of many kinds say of the object ``in/a b`` in the bucket ``b``; our own copies of documented facts."""

from __future__ import annotations

import base64
import json

OTHERS: dict[str, object] = {
    "minio without records": {"EventName": "s3:ObjectCreated:Put", "Key": "b/in/a b"},
    "a record of kafka rest without records": {
        "records": [{"key": "b/in/x", "value": {"EventName": "s3:ObjectCreated:Put", "Key": "b/in/a b"}}]
    },
    "keys of a bucket": {"bucket": "b", "keys": ["in/a b"]},
    "objects of a bucket": {"bucket": {"name": "b"}, "objects": [{"key": "in/a b", "size": 7}]},
    "nifi, ListS3": {
        "filename": "in/a b",
        "s3.bucket": "b",
        "s3.etag": "e",
        "s3.isLatest": "true",
        "s3.lastModified": "1767268800000",
        "s3.length": "7",
        "s3.storeClass": "STANDARD",
        "path": "./",
    },
    "nifi, PutS3Object": {"filename": "a b", "s3.bucket": "b", "s3.key": "in/a b", "s3.etag": "e", "uuid": "u"},
    "nifi, ListGCSBucket": {"filename": "in/a b", "gcs.bucket": "b", "gcs.key": "in/a b", "gcs.size": "7"},
    "nifi, ListAzureBlobStorage": {"filename": "a b", "azure.container": "b", "azure.blobname": "in/a b"},
    "a list of flow files": [{"filename": "in/a b", "s3.bucket": "b"}],
    "tencent cos": {
        "Records": [
            {
                "cos": {
                    "cosSchemaVersion": "1.0",
                    "cosBucket": {"name": "b", "region": "cd"},
                    "cosObject": {"key": "/in/a b", "size": 7, "vid": "", "url": "http://x/a"},
                },
                "event": {"eventName": "cos:ObjectCreated:Post", "eventSource": "qcs::cos", "eventTime": 1767268800},
            }
        ]
    },
    "huawei obs through smn": {
        "message": json.dumps(
            {
                "Records": [
                    {
                        "eventVersion": "3.0",
                        "eventSource": "OBS",
                        "eventName": "ObjectCreated:Put",
                        "obs": {
                            "bucket": {"name": "b", "bucket": "b"},
                            "object": {"key": "in%2Fa+b", "eTag": "e", "size": 7},
                        },
                    }
                ]
            }
        ),
        "type": "Notification",
        "topic_urn": "urn:smn:x",
    },
    "alibaba oss through mns": {
        "events": [
            {
                "eventName": "ObjectCreated:PutObject",
                "eventSource": "acs:oss",
                "oss": {"bucket": {"name": "b"}, "object": {"key": "in/a b", "size": 7, "deltaSize": 7}, "ruleId": "r"},
            }
        ]
    },
    "alibaba oss through eventbridge": {
        "specversion": "1.0",
        "type": "oss:ObjectCreated:PutObject",
        "source": "acs.oss",
        "subject": "acs:oss:cn:1:b/in/a b",
        "data": {
            "eventName": "ObjectCreated:PutObject",
            "oss": {"bucket": {"name": "b"}, "object": {"key": "in/a b", "size": 7}},
        },
    },
    "volcengine tos": {
        "events": [
            {
                "eventName": "tos:ObjectCreated:Put",
                "eventSource": "tos",
                "tos": {"bucket": {"name": "b"}, "object": {"key": "in/a b", "size": 7}},
            }
        ]
    },
    "baidu bos": {
        "events": [{"eventType": "PutObject", "content": {"bucket": "b", "object": "in/a b", "filesize": 7}}]
    },
    "yandex": {
        "messages": [
            {
                "event_metadata": {"event_type": "yandex.cloud.events.storage.ObjectCreate"},
                "details": {"bucket_id": "b", "object_id": "in/a b"},
            }
        ]
    },
    "ibm cos": {
        "bucket": "b",
        "endpoint": "",
        "key": "in/a b",
        "operation": "Object:Write",
        "notification": {
            "bucket_name": "b",
            "event_type": "Object:Write",
            "object_name": "in/a b",
            "object_length": "7",
        },
    },
    "ibm cos, its notification": {
        "notification": {
            "bucket_name": "b",
            "event_type": "Object:Write",
            "object_name": "in/a b",
            "object_length": "7",
        }
    },
    "cloudtrail through eventbridge": {
        "detail-type": "AWS API Call via CloudTrail",
        "detail": {
            "eventSource": "s3.amazonaws.com",
            "eventName": "PutObject",
            "requestParameters": {"bucketName": "b", "key": "in/a b", "Host": "b.s3.amazonaws.com"},
        },
    },
    "cloudtrail's file": {
        "Records": [
            {
                "eventSource": "s3.amazonaws.com",
                "eventName": "CompleteMultipartUpload",
                "requestParameters": {"bucketName": "b", "key": "in/a b"},
            }
        ]
    },
    "r2 through its queue": {
        "messages": [
            {
                "id": "1",
                "body": {
                    "account": "x",
                    "action": "CompleteMultipartUpload",
                    "bucket": "b",
                    "object": {"key": "in/a b", "size": 7},
                },
            }
        ]
    },
    "gcs object change": {"kind": "storage#object", "id": "b/in/a b/1", "bucket": "b", "name": "in/a b", "size": "7"},
    "azure through a queue": {
        "messages": [
            {
                "messageText": base64.b64encode(
                    json.dumps(
                        {
                            "subject": "/blobServices/default/containers/b/blobs/in/a%20b",
                            "eventType": "Microsoft.Storage.BlobCreated",
                            "data": {"contentLength": 5},
                        }
                    ).encode()
                ).decode()
            }
        ]
    },
    "azure in a batch of cloud events": [
        {
            "specversion": "1.0",
            "type": "Microsoft.Storage.BlobCreated",
            "source": "/x",
            "subject": "/blobServices/default/containers/b/blobs/in/a%20b",
            "data": {},
        }
    ],
    "sns in sqs": {
        "Records": [
            {
                "eventSource": "aws:sqs",
                "body": json.dumps(
                    {
                        "Type": "Notification",
                        "Message": json.dumps(
                            {
                                "Records": [
                                    {
                                        "eventSource": "wasabi:s3",
                                        "eventName": "ObjectCreated:Put",
                                        "s3": {"bucket": {"name": "b"}, "object": {"key": "in/a%20b"}},
                                    }
                                ]
                            }
                        ),
                    }
                ),
            }
        ]
    },
    "an envelope of another name": {"job": {"inputs": {"bucket": "b", "key": "in/a b"}}},
    "json in json": json.dumps({"bucket": "b", "key": "in/a b"}),
    "json in json in an envelope": {"data": json.dumps(json.dumps({"bucket": "b", "key": "in/a b"}))},
}
