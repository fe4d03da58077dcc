#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A reference consumer of mod_rustbridge's events on Kafka: uses each event once, and knows what it lost.

kcat -C -q -J -b BROKER -t TOPIC -o beginning -e | consumer_kafka.py

Reads what kcat prints with -J (any client that gives headers and payload would do), prints each new event as one line of
JSON, gap records to standard error, and at the end of its input a summary as one line of JSON to standard error.
"""
import json
import sys

from stream_check import StreamCheck


def main():
    check = StreamCheck()
    try:
        for line in sys.stdin:
            record = json.loads(line)
            # One flat list: name, value, name, value.
            flat = record.get("headers") or []
            headers = dict(zip(flat[::2], flat[1::2]))
            event = check.take(
                headers["message-id"], headers["node"], headers["boot"], headers["seq"], record["payload"]
            )
            if event is not None:
                # The consumer's work goes here. Commit the record's offset only when it is done.
                print(json.dumps(event))
    except KeyboardInterrupt:
        pass
    sys.stdout.flush()
    print(json.dumps(check.summary()), file=sys.stderr)


main()
