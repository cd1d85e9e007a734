"""RabbitMQ: queues, connections and the messages of tasks."""
