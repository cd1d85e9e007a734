# In place of rabbitmq:management: Debian's RabbitMQ, with the part of the entry point that we use.
FROM crochet-stand-in/servers
COPY rabbitmq.sh /usr/local/bin/entrypoint
ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/var/lib/rabbitmq
EXPOSE 5672 15672 15692
ENTRYPOINT ["sh", "/usr/local/bin/entrypoint"]
