# In place of python:3.11-slim: Debian's Python in a virtual environment, so that `python` and `pip` are what they are there.
FROM crochet-stand-in/python
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
RUN python3 -m venv /opt/python
ENV PATH=/opt/python/bin:/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin PIP_CERT=/etc/ssl/certs/ca-certificates.crt
