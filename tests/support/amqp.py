#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""An AMQP client that is not ours (pika), for tests.

amqp.py consume URL EXCHANGE KEY [QUEUE]  declares a queue and its binding (the exchange too, as a durable topic, unless
                                          it is there), says READY, then prints each message as one line of JSON
amqp.py bind URL EXCHANGE KEY QUEUE       the same without consuming
amqp.py publish URL EXCHANGE KEY          publishes each line of standard input, confirmed, and says how many
amqp.py declare URL EXCHANGE TYPE         declares a durable exchange
amqp.py delete URL EXCHANGE -             deletes an exchange
amqp.py drain URL QUEUE -                 prints and takes away what a queue holds, until it is empty
A URL with amqps:// takes ?cafile=…&certfile=…&keyfile=…
"""
import base64
import json
import sys

import pika


def plain(value):
    """Whatever a header holds as something JSON can hold."""
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def show(channel, method, properties, body):
    known = {name: plain(item) for name, item in vars(properties).items() if item is not None and name != "headers"}
    line = {
        "exchange": method.exchange,
        "key": method.routing_key,
        "redelivered": method.redelivered,
        "properties": known,
        "headers": plain(properties.headers or {}),
        "body": base64.b64encode(body).decode(),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    channel.basic_ack(method.delivery_tag)


def connect(url):
    import ssl
    from urllib.parse import parse_qs, urlsplit

    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    parameters = pika.URLParameters(url.split("?", 1)[0])
    parameters.heartbeat = 0
    if parts.scheme == "amqps":
        context = ssl.create_default_context(cafile=query.get("cafile"))
        if "certfile" in query:
            context.load_cert_chain(query["certfile"], query["keyfile"])
        parameters.ssl_options = pika.SSLOptions(context, parts.hostname)
    return pika.BlockingConnection(parameters)


def main():
    command, url, exchange, key = sys.argv[1:5]
    connection = connect(url)
    channel = connection.channel()
    if command == "declare":
        channel.exchange_declare(exchange, key, durable=True)
    elif command == "delete":
        channel.exchange_delete(exchange)
    elif command == "drain":
        channel.basic_qos(prefetch_count=1000)
        # Counted by the broker once nothing is with a consumer: what is left is then really nothing.
        while waiting := channel.queue_declare(exchange, passive=True).method.message_count:
            for method, properties, body in channel.consume(exchange, inactivity_timeout=30):
                if method is None:
                    break
                show(channel, method, properties, body)
                waiting -= 1
                if waiting == 0:
                    break
            channel.cancel()
    elif command == "publish":
        channel.confirm_delivery()
        count = 0
        for line in sys.stdin.buffer:
            channel.basic_publish(exchange, key, line.rstrip(b"\n"), pika.BasicProperties(delivery_mode=2))
            count += 1
        print(count)
    elif command in ("consume", "bind"):
        try:
            connection.channel().exchange_declare(exchange, passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            channel.exchange_declare(exchange, "topic", durable=True)
        # A queue with a name survives the broker's restart; one without goes with this process.
        name = sys.argv[5] if len(sys.argv) > 5 else ""
        queue = channel.queue_declare(name, durable=bool(name), exclusive=not name).method.queue
        channel.queue_bind(queue, exchange, key)
        if command == "bind":
            connection.close()
            return
        channel.basic_qos(prefetch_count=1000)
        channel.basic_consume(queue, show)
        sys.stdout.write("READY\n")
        sys.stdout.flush()
        channel.start_consuming()
    connection.close()


main()
