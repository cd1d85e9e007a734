# In place of redis: Debian's Redis, which like upstream's answers other containers without a password.
FROM crochet-stand-in/servers
COPY redis.sh /usr/local/bin/entrypoint
ENV PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin
EXPOSE 6379
ENTRYPOINT ["sh", "/usr/local/bin/entrypoint"]
CMD ["redis-server"]
