# HashiCorp Vault as docker-compose.yml starts it: raft on a volume, plain HTTP inside the compose network and on the
# host's loopback. docs/docker.md says what to change for a server that others depend on: TLS, a seal, a second audit
# device, more than one node.

ui            = false
disable_mlock = true # raft maps its file into memory, so locking it all would exhaust it; let the host swap encrypted
api_addr      = "http://vault:8200"
cluster_addr  = "http://127.0.0.1:8201"

storage "raft" {
  path                   = "/vault/file"
  node_id                = "compose"
  performance_multiplier = 1 # shortens the election of the only node
}

listener "tcp" {
  address              = "0.0.0.0:8200" # inside the container; the host publishes it on 127.0.0.1 only
  cluster_address      = "127.0.0.1:8201"
  tls_disable          = true
  max_request_duration = "10s" # no effect can appear later than this after its request
}
