output "mlflow_tracking_uri" {
  description = "MLFLOW_TRACKING_URI for hosts that reach the subnet."
  value       = "http://${yandex_compute_instance.mlflow.network_interface[0].ip_address}:5000"
}

output "mlflow_admin_password" {
  description = "MLFLOW_TRACKING_PASSWORD of the user admin."
  value       = random_password.mlflow_admin.result
  sensitive   = true
}

output "storage_secret_id" {
  description = "Lockbox secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: yc lockbox payload get ID."
  value       = yandex_lockbox_secret.storage.id
}

output "archive_source" {
  description = "FRAUD_RETRAIN_SOURCE, and where fraud-producer's --archive writes."
  value       = "s3://${yandex_storage_bucket.archive.bucket}/rows"
}

output "aws_endpoint_url" {
  description = "AWS_ENDPOINT_URL of the buckets; AWS_REGION is ru-central1."
  value       = "https://storage.yandexcloud.net"
}

output "registry_id" {
  description = "Container registry that the MLflow image is pushed to."
  value       = yandex_container_registry.main.id
}

output "spark_cluster_id" {
  description = "Id of the Spark cluster; null where there is none."
  value       = one(yandex_dataproc_cluster.spark[*].id)
}
