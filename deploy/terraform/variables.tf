# ---- where -----------------------------------------------------------------------------------------------------------

variable "cloud_id" {
  description = "Id of the cloud that everything is made in."
  type        = string
}

variable "folder_id" {
  description = "Id of the folder that everything is made in; one of its own makes costs and rights easy to tell apart."
  type        = string
}

variable "zone" {
  description = "Availability zone of all hosts."
  type        = string
  default     = "ru-central1-a"

  validation {
    condition     = contains(["ru-central1-a", "ru-central1-b", "ru-central1-d"], var.zone)
    error_message = "zone must be ru-central1-a, ru-central1-b or ru-central1-d."
  }
}

variable "name" {
  description = "Prefix of all names: letters, digits and dashes, so that several installations fit into one folder."
  type        = string
  default     = "fraud"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 22 lower-case letters, digits and dashes, begin with a letter and not end with a dash."
  }
}

variable "labels" {
  description = "Labels put on everything that takes some; they show in the bill."
  type        = map(string)
  default     = { project = "fraud-scorer" }
}

# ---- network ---------------------------------------------------------------------------------------------------------

variable "subnet_cidr" {
  description = "Address range of the one subnet."
  type        = string
  default     = "10.40.0.0/24"

  validation {
    condition     = can(cidrhost(var.subnet_cidr, 1))
    error_message = "subnet_cidr must be a range such as 10.40.0.0/24."
  }
}

variable "client_cidrs" {
  description = "Address ranges that may reach MLflow's port: the workers, Airflow, a VPN. Empty: only hosts of the subnet."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for range in var.client_cidrs : can(cidrhost(range, 0)) && range != "0.0.0.0/0"])
    error_message = "client_cidrs must be address ranges, and not the whole internet: MLflow's port speaks plain HTTP."
  }
}

# ---- object storage --------------------------------------------------------------------------------------------------

variable "bucket_suffix" {
  description = "Ends the buckets' names, which are unique over all customers; for example the company's name."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,30}[a-z0-9]$", var.bucket_suffix))
    error_message = "bucket_suffix must be 3 to 32 lower-case letters, digits and dashes."
  }
}

variable "archive_days" {
  description = "Days after which rows of the archive are deleted. Keep more than the longest training window."
  type        = number
  default     = 180

  validation {
    condition     = var.archive_days >= 30
    error_message = "archive_days must be at least 30."
  }
}

# ---- PostgreSQL: MLflow's backend ------------------------------------------------------------------------------------

variable "postgres_version" {
  description = "Major version of the managed PostgreSQL."
  type        = string
  default     = "17"

  validation {
    condition     = contains(["15", "16", "17"], var.postgres_version)
    error_message = "postgres_version must be 15, 16 or 17."
  }
}

variable "postgres_preset" {
  description = "Size of a database host (resource preset)."
  type        = string
  default     = "s3-c2-m8"
}

variable "postgres_disk_gb" {
  description = "Disk of a database host, in GB."
  type        = number
  default     = 16

  validation {
    condition     = var.postgres_disk_gb >= 10
    error_message = "postgres_disk_gb must be at least 10."
  }
}

# ---- MLflow ----------------------------------------------------------------------------------------------------------

variable "mlflow_image" {
  description = "Image of the MLflow server, built from deploy/mlflow and pushed to the registry of this configuration, named by digest."
  type        = string

  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.mlflow_image))
    error_message = "mlflow_image must be named by digest: cr.yandex/REGISTRY/mlflow@sha256:…"
  }
}

variable "mlflow_cores" {
  description = "Cores of the MLflow host."
  type        = number
  default     = 2
}

variable "mlflow_memory_gb" {
  description = "Memory of the MLflow host, in GB."
  type        = number
  default     = 4

  validation {
    condition     = var.mlflow_memory_gb >= 2
    error_message = "mlflow_memory_gb must be at least 2."
  }
}

# ---- Spark -----------------------------------------------------------------------------------------------------------

variable "spark_enabled" {
  description = "Whether there is a Spark cluster. It is the largest cost by far: turn it off while nobody trains with --engine spark."
  type        = bool
  default     = false
}

variable "spark_image" {
  description = "Version of the cluster's image. Empty: the service's default."
  type        = string
  default     = ""
}

variable "spark_preset" {
  description = "Size of a Spark host (resource preset)."
  type        = string
  default     = "s3-c4-m16"
}

variable "spark_hosts_max" {
  description = "Computing hosts at most; the cluster grows from one to this many by load."
  type        = number
  default     = 4

  validation {
    condition     = var.spark_hosts_max >= 1 && var.spark_hosts_max <= 32
    error_message = "spark_hosts_max must be 1 to 32."
  }
}

variable "ssh_public_key" {
  description = "SSH public key of the administrator, for the Spark hosts and the MLflow host (user admin)."
  type        = string

  validation {
    condition     = can(regex("^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp256) \\S+", var.ssh_public_key))
    error_message = "ssh_public_key must be the text of a public key: ssh-ed25519 AAAA…"
  }
}

# ---- protection ------------------------------------------------------------------------------------------------------

variable "deletion_protection" {
  description = "Whether database, buckets' content and secrets are guarded against `terraform destroy`."
  type        = bool
  default     = true
}
