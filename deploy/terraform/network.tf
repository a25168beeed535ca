# One network, one subnet without public addresses, a gateway for what goes out, and who may speak with whom:
#
#   clients, Spark ──5000──► mlflow ──6432──► postgres
#   all hosts ──443──► object storage, Lockbox, registry

resource "yandex_vpc_network" "main" {
  name   = var.name
  labels = var.labels
}

resource "yandex_vpc_gateway" "egress" {
  name = "${var.name}-egress"
  shared_egress_gateway {}
}

resource "yandex_vpc_route_table" "main" {
  name       = var.name
  network_id = yandex_vpc_network.main.id

  static_route {
    destination_prefix = "0.0.0.0/0"
    gateway_id         = yandex_vpc_gateway.egress.id
  }
}

resource "yandex_vpc_subnet" "main" {
  name           = var.name
  zone           = var.zone
  network_id     = yandex_vpc_network.main.id
  v4_cidr_blocks = [var.subnet_cidr]
  route_table_id = yandex_vpc_route_table.main.id
  labels         = var.labels
}

resource "yandex_vpc_security_group" "mlflow" {
  name       = "${var.name}-mlflow"
  network_id = yandex_vpc_network.main.id
  labels     = var.labels

  ingress {
    description    = "MLflow, for clients and Spark"
    protocol       = "TCP"
    port           = 5000
    v4_cidr_blocks = concat([var.subnet_cidr], var.client_cidrs)
  }

  ingress {
    description    = "SSH from within the subnet"
    protocol       = "TCP"
    port           = 22
    v4_cidr_blocks = [var.subnet_cidr]
  }

  egress {
    description    = "PostgreSQL"
    protocol       = "TCP"
    port           = 6432
    v4_cidr_blocks = [var.subnet_cidr]
  }

  egress {
    description    = "Object storage, Lockbox, registry"
    protocol       = "TCP"
    port           = 443
    v4_cidr_blocks = ["0.0.0.0/0"]
  }

  egress {
    description    = "Names, by the subnet's own server"
    protocol       = "UDP"
    port           = 53
    v4_cidr_blocks = [var.subnet_cidr]
  }

  egress {
    description    = "The host's metadata, which it signs in with"
    protocol       = "TCP"
    port           = 80
    v4_cidr_blocks = ["169.254.169.254/32"]
  }
}

resource "yandex_vpc_security_group" "postgres" {
  name       = "${var.name}-postgres"
  network_id = yandex_vpc_network.main.id
  labels     = var.labels

  ingress {
    description       = "MLflow"
    protocol          = "TCP"
    port              = 6432
    security_group_id = yandex_vpc_security_group.mlflow.id
  }
}

resource "yandex_vpc_security_group" "spark" {
  name       = "${var.name}-spark"
  network_id = yandex_vpc_network.main.id
  labels     = var.labels

  ingress {
    description       = "Between the cluster's hosts"
    protocol          = "ANY"
    from_port         = 0
    to_port           = 65535
    predefined_target = "self_security_group"
  }

  ingress {
    description    = "SSH from within the subnet"
    protocol       = "TCP"
    port           = 22
    v4_cidr_blocks = [var.subnet_cidr]
  }

  egress {
    description       = "Between the cluster's hosts"
    protocol          = "ANY"
    from_port         = 0
    to_port           = 65535
    predefined_target = "self_security_group"
  }

  egress {
    description       = "MLflow"
    protocol          = "TCP"
    port              = 5000
    security_group_id = yandex_vpc_security_group.mlflow.id
  }

  egress {
    description    = "Object storage, the service's own control"
    protocol       = "TCP"
    port           = 443
    v4_cidr_blocks = ["0.0.0.0/0"]
  }

  egress {
    description    = "Time"
    protocol       = "UDP"
    port           = 123
    v4_cidr_blocks = ["0.0.0.0/0"]
  }
}
