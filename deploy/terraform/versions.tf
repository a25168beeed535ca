# Versions, and who signs in. Credentials come from the environment (YC_TOKEN, or YC_SERVICE_ACCOUNT_KEY_FILE), never
# from a variable: variables end up in plans and in the state.

terraform {
  required_version = ">= 1.6.0, < 2.0.0"

  required_providers {
    yandex = {
      source  = "yandex-cloud/yandex"
      version = "~> 0.170"
    }
    random = {
      source  = "hashicorp/random"
      version = "~> 3.7"
    }
  }

  # The state holds the passwords made here: keep it in a bucket of its own, encrypted and versioned, and not on a disk.
  # Bucket, key and endpoint are given at `terraform init -backend-config=backend.hcl`; see README.md.
  backend "s3" {}
}

provider "yandex" {
  cloud_id  = var.cloud_id
  folder_id = var.folder_id
  zone      = var.zone
}
