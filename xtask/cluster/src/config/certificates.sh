# Certificates of a server and of a client, and a file for --web-config that asks for them, in the directory $1.
set -e
mkdir -p "$1"
cd "$1"
new() { openssl req -newkey rsa:2048 -nodes -sha256 -subj "/CN=$1" -keyout "$1.key" "${@:2}" 2>/dev/null; }
new ca -x509 -days 2 -out ca.crt
for name in server client; do
    new $name -out $name.csr
    openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out $name.crt \
        -extfile <(echo subjectAltName=DNS:proxytrace) 2>/dev/null
done
cat >web.yml <<WEB
tls_server_config:
  cert_file: server.crt
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
WEB
