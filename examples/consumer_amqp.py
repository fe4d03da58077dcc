#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A reference consumer of mod_rustbridge's events on RabbitMQ: uses each event once, and knows what it lost.

consumer_amqp.py URL QUEUE [--until-empty]

Prints each new event as one line of JSON, gap records to standard error, and at the end (Ctrl-C, or an empty queue with
--until-empty) a summary as one line of JSON to standard error. The queue must be durable and bound to the exchange before
the module publishes to it: what no queue takes, RabbitMQ throws away. Needs pika (apt-get install python3-pika).
"""
import json
import sys

import pika

from stream_check import StreamCheck

# Messages that the broker hands out before it has the answers.
PREFETCH = 500


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def main():
    url, queue = sys.argv[1:3]
    until_empty = "--until-empty" in sys.argv[3:]
    check = StreamCheck()
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.queue_declare(queue, passive=True)
    channel.basic_qos(prefetch_count=PREFETCH)
    try:
        for method, properties, body in channel.consume(queue, inactivity_timeout=1 if until_empty else None):
            if method is None:
                if channel.queue_declare(queue, passive=True).method.message_count == 0:
                    break
                continue
            headers = properties.headers or {}
            event = check.take(
                properties.message_id, text(headers["node"]), text(headers["boot"]), headers["seq"], body
            )
            if event is not None:
                # The consumer's work goes here. It must be done before the acknowledgement: what is acknowledged is gone.
                print(json.dumps(event))
            channel.basic_ack(method.delivery_tag)
    except KeyboardInterrupt:
        pass
    sys.stdout.flush()
    print(json.dumps(check.summary()), file=sys.stderr)
    channel.cancel()
    connection.close()


main()
