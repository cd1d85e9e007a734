# In place of haproxy: Debian's, which has the same options.
FROM crochet-stand-in/servers
RUN apt-get update -qq && apt-get install -qq --yes --no-install-recommends haproxy netcat-openbsd wget >/dev/null
ENV PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin
USER haproxy
ENTRYPOINT ["haproxy"]
CMD ["-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
